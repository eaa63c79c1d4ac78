"""Words that say nothing of what a text is about: of English here, of other languages from the package stop-words."""

from __future__ import annotations

from vipack.datasets.word_counting import tokenize
from vipack.errors import MissingExtraError, UsageError
from vipack.hints import checked, name_hint

__all__ = ["DOCSTRING_BOILERPLATE", "ENGLISH", "stop_words_of"]

# Function words of English: articles, pronouns, prepositions, conjunctions, auxiliaries, and adverbs of degree or place.
_ENGLISH = """
a am an as at be by do go he i if in is it me my no of oh on or so to up us we
about above across after afterwards again against all almost alone along already also although always among amongst and
another any anybody anyhow anyone anything anyway anywhere are around aside away back became because become becomes
becoming been before beforehand behind being below beside besides between beyond both but came can cannot come comes
could did does doing done down due during each either else elsewhere enough entirely especially etc even ever every
everybody everyone everything everywhere except far few for former formerly from further furthermore gave get gets
getting give given gives giving goes going gone got had has have having hence her here hereafter hereby herein hers
herself him himself his how however indeed inside instead into its itself just keep keeps kept last later latter least
less let lets like likely made mainly make makes making many may maybe meanwhile merely might mine more moreover most
mostly much must myself namely near nearly neither never nevertheless next nobody none nonetheless nor not nothing now
nowhere off often once one ones only onto other others otherwise ought our ours ourselves out outside over own per
perhaps please put puts quite rather really same saw say says see seem seemed seeming seems seen self several shall she
should since some somebody somehow someone something sometime sometimes somewhere still such take taken takes taking
than that the their theirs them themselves then thence there thereafter thereby therefore therein these they thing
things this those though through throughout thus together too took toward towards two under unless until unto upon
usually very via want wants was way ways well went were what whatever when whence whenever where whereas whereby wherein
wherever whether which whichever while who whoever whole whom whose why will with within without would yet you your
yours yourself yourselves
"""

# What docstrings say of any code: the parts of a call, and Python's own kinds of value.
_CODE = """
arg args argument arguments attr attribute attributes bool boolean booleans call callable callables called caller
callers calling calls class classes constant constants constructor constructors copy def default defaults descriptor
dict dictionaries dictionary dicts eggs exception exceptions false float foo func function functions getter ham impl
implementation implementations implemented implementing implements import imported importing imports inherit inherited
inherits init initialization initialize initialized initializer initializes instance instances instantiate instantiated
int integer integers interface interfaces invoke invoked invokes invoking iterable iterables iterator iterators keyword
keywords kwargs kwds list lists method methods module modules mutable name named names none null obj object objects
overridden override overrides overriding param parameter parameters params pass passed passes passing property python
raise raised raises raising repr return returned returning returns setter signature spam str string strings subclass
subclasses subclassing true tuple tuples type types value values var variable variables
"""

# The phrases of reference prose, whatever it describes, and of copyright notices.
_REFERENCE = """
able accept accepted accepts according actual actually add added adding additional additionally adds allow allowed
allowing allows andre appear appears appropriate arbitrary associated assume assumed assumes author authors
automatically available avoid base based basic behave behavior behaviour best better bit built case cases cause caused
causes certain change changed changes changing check checked checking checks cnri code common compatibility compatible
complete completely considered construct constructed constructs contain contained containing contains contributed
convenience copyright correct correctly correspond corresponding create created creates creating creation credit credits
current currently custom define defined defines defining definition depend depending depends deprecated derived describe
described describes description desired detail details determine determined determines different direct directly docs
documentation documented easily easy effect empty ensure ensures entire equivalent exactly example examples exist
existing exists expect expected expects explicit explicitly extra fact fail fails fine first five follow followed
following follows form forms found four full fully general generally generic good handle handled handles handling helper
helpers high identical ignore ignored ignores ignoring immediately implicit important include included includes
including indicate indicated indicates indicating information initial intended internal internally invalid involved item
items kind know known lack left lemburg licensed long look looked looking low main manner marc mean meaning means
mention multiple naming necessary need needed needs new non normal normally note notes number numbers obtain obtained
occur occurred occurs old omitted one opposite optional optionally order original part particular particularly perform
performed performs place plus point possible possibly present previous previously problem produce produced produces
proper properly provide provided provides providing public purpose purposes real reason refer reference refers related
relevant report represent representation representing represents require required requires reserved respectively result
resulting results right rights rule same second section set sets setting settings side similar similarly simple simply
single six small sort special specific specifically specification specified specifies specify specifying standard step
stored sub suitable supplied supply support supported supporting supports suppose supposed sure ten term test three time
times todo total track treat treated treats try trying turn typical typically underlying unique unknown update updated
updates updating usage use used useful user uses using usual valid variant various version versions warranty work
working works wrap wrapped wrapper wraps wrong yield yields zero
"""

ENGLISH = frozenset(_ENGLISH.split())
"""English function words."""

DOCSTRING_BOILERPLATE = frozenset(_CODE.split()) | frozenset(_REFERENCE.split())
"""Left out of docstrings so that topics tell what modules are for (sockets, dates, widgets), not that functions return
values. Found by reading topics fitted with and without them."""


@checked
def stop_words_of(language: str) -> frozenset[str]:
    """The stop words of a language, by its English name or its ISO 639-1 code: "german" or "de".

    Raises:
        UsageError: there is no list for it.
        MissingExtraError: it is not English, and stop-words is not installed.
    """
    name = language.strip().lower()
    if name in ("english", "en"):
        return ENGLISH
    try:
        import stop_words
    except ImportError as error:
        raise MissingExtraError(
            f"stop_words={language!r}: lists of languages other than English need stop-words, which is not installed: "
            "pip install 'vipack[topics]'; or give a set of words."
        ) from error
    codes: dict[str, str] = stop_words.LANGUAGE_MAPPING
    if name not in codes and name not in codes.values():
        known = ", ".join(f"{full} ({code})" for code, full in sorted(codes.items(), key=lambda pair: pair[1]))
        hint = name_hint(name, [*codes.values(), "english"])
        raise UsageError(
            f"stop_words: expected a set of words or a language, found {language!r}; {hint + ' ' if hint else ''}there are "
            f"{known}."
        )
    words = [word.lower() for word in stop_words.get_stop_words(name)]
    # As tokenize splits them, and as they are, for tokenizers that do not.
    return frozenset(words) | {each for word in words for each in tokenize(word, 1)}
