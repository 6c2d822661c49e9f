"""What tests of pages share: a reader of HTML that knows what is left open, and what no page of ours may hold."""

import html.parser
import itertools
import re

VOID = frozenset({"meta", "link", "img", "br"})


class Page(html.parser.HTMLParser):
    """Tags in order with their attributes, what was left open, the ids, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.raw = text
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def check_page(page: Page) -> None:
    """Well-formed, self-contained, without scripts, and readable without eyes."""
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert "script" not in {tag for tag, _ in page.tags}
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(deeper <= level + 1 for level, deeper in itertools.pairwise(levels))
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes[name][:60])
        if tag == "img":
            assert attributes["alt"]
        if attributes.get("role") in ("img", "region"):
            assert attributes.get("aria-label") or set(attributes["aria-labelledby"].split()) <= set(page.ids)
        if tag == "th":
            assert attributes["scope"] in ("col", "row")
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", page.raw)
