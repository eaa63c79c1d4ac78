# %% [markdown]
# # Topics from a folder of texts
#
# A folder of text files goes in; topics with intervals, the documents that show them best, and a page to explore come out.
#
# ## A folder
#
# Any folder of `.txt` files will do, or a CSV, JSON Lines or Parquet file. Here the texts are the docstrings of Python's standard library, which every machine has:
# one file for each module or class.

# %%
import ast
import sysconfig
from pathlib import Path

import vipack as vi

folder = Path("texts")
folder.mkdir(exist_ok=True)
for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    text = "\n".join(ast.get_docstring(node) or "" for node in nodes)
    if len(text.split()) > 50:
        (folder / f"{path.stem}.txt").write_text(text, encoding="utf-8")
len(list(folder.iterdir()))

# %% [markdown]
# ## Words
#
# `load_texts` counts words of at least three letters that are no English stop words; `TextRules` changes that. Words in nearly all documents or in very few say little
# about topics, and documents with few words say little at all.

# %%
corpus = vi.datasets.load_texts(folder).prune(min_documents=4, max_fraction=0.2, min_tokens=20)
corpus

# %% [markdown]
# ## Fit
#
# `LDA` has scikit-learn's face. Behind it is a Pyro program, fitted by coordinate ascent.

# %%
train, held_out = corpus.split(0.2, seed=0)
model = vi.topics.LDA(num_topics=10, random_state=0, progress=False).fit(train)
model.fit_.stopped

# %% [markdown]
# ## Read
#
# FREX words are both frequent and exclusive to a topic. Proportions are of all words of the corpus.

# %%
shares = model.topic_proportions()
for name, words in zip(model.topic_names_, model.top_words(8, measure="frex"), strict=True):
    print(f"{name:9} {shares[name]:4.0%}  {' '.join(words)}")

# %%
model.top_documents(2)

# %% [markdown]
# How sure are we of these words? Probabilities with 90% credible intervals:

# %%
model.word_table(3).head(6).round(3)

# %% [markdown]
# ## Judge
#
# Half of each held-out document is shown to the model, which predicts the other half: a perplexity of P says that it is as unsure as among P equally likely words.

# %%
vi.topics.completion(model.topics_, held_out)

# %%
vi.topics.coherence(model.topics_, train).to_frame().head()

# %% [markdown]
# How many topics? Fit several numbers, with two seeds each, and look at what held-out words gain:


# %%
def fit_topics(num_topics, seed):
    return vi.topics.LDA(num_topics=num_topics, random_state=seed, progress=False).fit(train).topics_


choice = vi.topics.choose_num_topics(fit_topics, held_out, num_topics=[5, 10, 20], seeds=2)
print(choice.reading)

# %%
vi.topics.num_topics_curves(choice)[0].figure

# %% [markdown]
# ## Explore, and new documents
#
# The explorer is one HTML file that needs no network: topics as a map, their words by relevance, and the documents.

# %%
vi.topics.explore(model.topics_, model.shares_, train, path="topics.html")
shares = model.transform(held_out)
for title, row in list(zip(held_out.titles, shares, strict=True))[:4]:
    print(f"{title}: {row.max():.0%} {model.topic_names_[row.argmax()]}")

# %% [markdown]
# The same without a line of Python: `vipack topics texts --out results`.
#
# **Next:** [topic models](../topics.md) with covariates and outcomes, [judging topics](../topics-judging.md), [the explorer](../topics-explorer.md).
