import pandas as pd

from vipack.cli.text_tables import markdown_table, text_table

TABLE = pd.DataFrame(
    {"rank": [0, 1], "elbo": [-1234.567, 0.00123], "ess": [1999.6, float("nan")], "verdict": ["TRUST", "a|b<c>"]},
    index=pd.Index(["full-rank", "iaf"], name="fit"),
)


def test_text_is_aligned_and_rounded():
    assert text_table(TABLE).splitlines() == [
        "fit        rank       elbo    ess  verdict",
        "full-rank     0  -1,234.57  2,000  TRUST",
        "iaf           1     0.0012    nan  a|b<c>",
    ]


def test_markdown_escapes_its_own_sign():
    assert markdown_table(TABLE).splitlines() == [
        "| fit | rank | elbo | ess | verdict |",
        "| --- | ---: | ---: | ---: | --- |",
        "| full-rank | 0 | -1,234.57 | 2,000 | TRUST |",
        "| iaf | 1 | 0.0012 | nan | a\\|b<c> |",
    ]
