"""Texts that come from users, as each format must write them to show them and nothing else: one
function for each.

HTML needs none: the page is a Jinja template that escapes by itself, and attributes of pictures go
through `html.escape`.
"""

import re

from perturb.errors import one_line

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def line(text: object) -> str:
    """On one line: line ends are spaces, whatever else cannot be printed is written as an
    escape.
    """
    return one_line(re.sub(r"[\t\r\n\v\f\x85\u2028\u2029]+", " ", str(text)))


def latex(text: object) -> str:
    """For LaTeX, outside comments. A bracket or star in front would be taken for an argument of
    the line end before it.
    """
    # sign by sign: what one replacement writes is not replaced again
    escaped = "".join(LATEX.get(sign, sign) for sign in line(text))
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped[:1] in ("[", "*") else escaped


def markdown(text: object) -> str:
    """For Markdown, a table's cells among it: no HTML, no emphasis, no links, no code
    (CommonMark, with GitHub's tables).
    """
    escaped = "".join(
        HTML.get(sign, sign) for sign in re.sub(r"([\\`*\[\]|~$])", r"\\\1", line(text))
    )
    # within a word it is no emphasis
    escaped = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", escaped)
    # no heading and no list in front of a paragraph
    return re.sub(r"^(\d*)([#+-]+|(?<=\d)[.)])(?=\s)", r"\1\\\2", escaped)


def code(text: object) -> str:
    """For Markdown, as code: between more backticks than stand together in it; on lines of its
    own if it has several.
    """
    # CommonMark: a fence of n backticks is ended by n alone
    text = str(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    if text != line(text):
        fence = fence if len(fence) > 2 else "```"
        return f"\n\n{fence}\n{text}\n{fence}\n"
    inner = f" {text} " if text.startswith("`") or text.endswith("`") else text
    return f"{fence}{inner}{fence}"


def plain(text: object) -> str:
    """For Matplotlib: a dollar is a dollar, and begins no formula."""
    return line(text).replace("$", r"\$")
