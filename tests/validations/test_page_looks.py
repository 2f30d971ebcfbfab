"""The verdict page as Chromium shows it: on a phone, on a desk, in the dark, and on paper."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import matplotlib.image
import numpy
import pytest

from tests.chromium import DARK, Chromium
from tests.validations.measured import batch, request
from tests.validations.test_page import page, spoken
from validations.about import About, Command, Picture, Step, Weights
from validations.nearby import Moved, Search

PHONE, DESK = 320, 1280
LONG = "Pneumonoultramicroscopicsilicovolcanoconiosis-" * 3
LOOK = """
const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
const relative = (c) => { const l = c.slice(0, 3).map((v) => linear(v / 255));
  return .2126 * l[0] + .7152 * l[1] + .0722 * l[2] };
const colour = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n };
const over = (top, low) => top.slice(0, 3).map((v, i) => v * top[3] + low[i] * (1 - top[3])).concat(1);
const behind = (element, view) => { const layers = []; for (let e = element; e; e = e.parentElement)
  layers.push(colour(view.getComputedStyle(e).backgroundColor));
  return layers.reduceRight((low, top) => over(top, low), [255, 255, 255, 1]) };
const look = (frame) => { const view = frame.contentWindow, page = frame.contentDocument, root = page.documentElement;
  const faint = [];
  const walk = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) { const holder = node.parentElement;
    if (!node.data.trim() || !holder.checkVisibility()) continue;
    const back = behind(holder, view), front = over(colour(view.getComputedStyle(holder).color), back);
    const [a, b] = [relative(front), relative(back)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) faint.push([node.data.trim().slice(0, 40), ratio.toFixed(2)]) }
  const scrolled = [...page.querySelectorAll(".sheet")].filter((e) => e.scrollWidth > e.clientWidth + 1);
  const cells = [...page.querySelectorAll("td")].filter((e) => e.scrollWidth > e.clientWidth + 1);
  return { wide: root.scrollWidth - root.clientWidth, faint, back: view.getComputedStyle(page.body).backgroundColor,
    scrolled: scrolled.map((e) => e.firstElementChild.className), cells: cells.map((e) => e.className),
    headings: [...page.querySelectorAll("h1,h2,h3,h4")].map((e) => +e.tagName[1]),
    unnamed: [...page.querySelectorAll("img:not([alt]), svg:not([aria-label]), th:empty")].map((e) => e.outerHTML) } };
onload = () => setTimeout(() => { document.getElementById("seen").textContent =
  JSON.stringify([...document.querySelectorAll("iframe")].map(look)) }, 50);
"""
"""Contrast by WCAG 2.2, success criterion 1.4.3; the frame's width is what the page's media queries see."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every part, texts that do not break, and a refusal."""
    folder = tmp_path_factory.mktemp("page")
    matplotlib.image.imsave(folder / "trace.png", numpy.zeros((40, 60)))
    of = batch(request("eiffel", target=LONG), request("pisa"), request(LONG))
    moved = tuple(Moved(source=source, request=name, prompt=f"Where is {LONG}?", nats=2.5, parent="Paris", candidate=LONG)
                  for source, name in (("neighbour", "eiffel"), ("earlier", "old"), ("question", "-"), ("opening", "-")))
    about = About("smollm2", "3f9a1c2b7d04", channel="demo", method="memit", provenance={"sheet": "a" * 64},
                  pictures=[Picture("Causal trace of eiffel", folder / "trace.png")], warnings=["near another request"],
                  commands=[Command("Approve it", f'suture approve {"3f9a1c2b7d04" * 6} --by NAME --reason "..."')],
                  stack=[Step("c" * 64, "update", "memit", 12), Step("d" * 64, "update", "memit", 3, is_new=True)],
                  weights=Weights(272, 270, {"integrity-0": "rank 3"}),
                  search=Search(searched={"neighbour": 6, "earlier": 12, "question": 60, "opening": 20}, moved=moved))
    measured = spoken(of, spoilt={("neighbourhood.generate_exact", "*"): 0.0, ("efficacy.generate_exact", "pisa"): 0.0})
    names = ("neighbourhood.answer", "paraphrase.answer", "locality.kl", "perplexity.held_out", "integrity.cast_noise")
    text, _ = page(of, measured, about, *names)
    (folder / "page.html").write_text(text, encoding="utf-8")
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{html.escape(text)}"></iframe>' for width in (PHONE, DESK))
    (folder / "frames.html").write_text(f'<meta charset="utf-8"><pre id="seen"></pre>{frames}<script>{LOOK}</script>',
                                        encoding="utf-8")
    return folder


def seen(chromium: Chromium, folder: Path, *flags: str) -> list[dict]:
    document = chromium.document(f"file://{folder}/frames.html", *flags)
    return json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', document, re.S)[1]))


@pytest.mark.parametrize("flags", [(), (DARK,)], ids=["light", "dark"])
def test_it_fits_phone_and_desk_and_every_word_can_be_read(chromium: Chromium, written: Path, flags: tuple[str, ...]) -> None:
    phone, desk = seen(chromium, written, *flags)
    for one in (phone, desk):
        assert one["wide"] <= 0
        assert one["faint"] == []
        assert one["unnamed"] == []
        assert one["headings"] == [1] + [2] * (len(one["headings"]) - 1)
    assert phone["scrolled"] == []
    assert phone["cells"] == []
    assert (phone["back"] == "rgb(251, 250, 248)") is not bool(flags)


def test_it_prints_on_a_few_sheets_of_paper(chromium: Chromium, written: Path) -> None:
    printed = chromium.pdf(f"file://{written}/page.html", written / "page.pdf").read_bytes()
    pages = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert printed.startswith(b"%PDF")
    assert 2 <= pages <= 6
