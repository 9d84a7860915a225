#!/usr/bin/env python3
"""Draws what benches/wan.sh measured: `benches/plot.py [RESULTS [PICTURE]]`, from target/wan.jsonl to docs/wan.svg.

Of results that were added several times the last ones count, of those with files of the same size. What is void is pale,
and there only where nothing else is; what was not run is left out.
"""
import json
import math
import os
import sys
from xml.sax.saxutils import escape

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WIDTH, LEFT, RIGHT = 860, 270, 140  # of the picture; of names; of figures
BAR, GAP, HEAD, FOOT = 20, 9, 66, 44
INK, SOFT, LINE, PAPER = "#1f2933", "#667382", "#d8dee6", "#ffffff"
OURS, PEER, AIM = "#1769aa", "#b4bec9", "#c2410c"
ROUTES = ["#1769aa", "#3f8fcf", "#74b3e3", "#a9d1f0", "#cfe5f7"]

PANELS = {
    "A": (
        "Several uplinks: one job through the uplinks of four hosts",
        "Each 100 Mbit/s, 100 ms away. Shades are the routes that carried it; the mark is what the uplinks allow.",
    ),
    "B": ("One large file far away", "1 Gbit/s, 93 ms. Mbit/s of the file; other programs sent 1 GiB of it."),
    "C": ("A lossy path", "200 Mbit/s, 50 ms, 0.1 % of packets lost. Mbit/s of the file."),
    "D": ("1,000 files of 1 KiB into a new folder", "200 ms away. Round trips from the start of the program to its end; the scale is logarithmic."),
}
PAYLOAD = 0.956  # of the rate of a link, at the most: the rest is headers


def read(path):
    """Conditions, and the last result of each row and name."""
    conditions, results = {}, {}
    with open(path) as file:
        for line in file:
            entry = json.loads(line)
            if "conditions" in entry:
                # Files of another size are another measurement.
                if entry["conditions"]["scale"] != conditions.get("scale"):
                    results = {}
                conditions = entry["conditions"]
            elif "value" in entry and not entry["name"].endswith("_fewer"):
                key = (entry["row"], entry["name"])
                if entry["truthful"] or not results.get(key, entry)["truthful"]:
                    results.pop(key, None)
                    results[key] = entry
            elif "value" not in entry:
                results.pop((entry["row"], entry["name"]), None)
    return conditions, list(results.values())


class Drawing:
    def __init__(self):
        self.parts, self.y = [], 0

    def text(self, x, y, text, size=13, fill=INK, anchor="start", weight="normal"):
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" font-weight="{weight}"'
            # A rim, where lines pass behind it.
            f' stroke="{PAPER}" stroke-width="4" stroke-linejoin="round" paint-order="stroke">{escape(text)}</text>'
        )

    def bar(self, x, y, width, fill, is_pale):
        pale = ' fill-opacity="0.4"' if is_pale else ""
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{BAR}" rx="2" fill="{fill}"{pale}/>')

    def line(self, x, y0, y1, fill=LINE, dash="", width=1.0):
        dash = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<line x1="{x:.1f}" y1="{y0:.1f}" x2="{x:.1f}" y2="{y1:.1f}" stroke="{fill}" stroke-width="{width}"{dash}/>')

    def svg(self):
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.y:.0f}" width="{WIDTH}" height="{self.y:.0f}" '
            f'font-family="Helvetica, Arial, \'DejaVu Sans\', sans-serif">\n<rect width="100%" height="100%" fill="{PAPER}"/>\n'
            + "\n".join(self.parts) + "\n</svg>\n"
        )


def ticks_of(top, is_log):
    if is_log:
        return [10**power for power in range(int(math.log10(top)) + 1)]
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 250, 500, 1000, 2000) if top / step <= 6)
    return [step * number for number in range(int(top / step) + 1)]


def panel(drawing, row, results):
    is_log = row == "D"
    size = lambda result: result["value"] if is_log else result["rate_mbit"]
    if row != "A":
        results = sorted(results, key=size, reverse=not is_log)
    link = max((result.get("link_mbit", 0) for result in results), default=0)
    top = max([size(result) for result in results] + [link, *(allowed(result, results) or 0 for result in results)]) * (1.6 if is_log else 1.0)
    span = WIDTH - LEFT - RIGHT
    at = lambda value: LEFT + span * (math.log10(max(value, 1)) / math.log10(top) if is_log else value / top)
    title, sub = PANELS[row]
    drawing.text(24, drawing.y + 26, title, 16, weight="bold")
    drawing.text(24, drawing.y + 46, sub, 12, SOFT)
    begin, end = drawing.y + HEAD, drawing.y + HEAD + len(results) * (BAR + GAP)
    for tick in ticks_of(top, is_log):
        drawing.line(at(tick), begin - 4, end)
        drawing.text(at(tick), end + 14, f"{tick:,}", 11, SOFT, "middle")
    drawing.text(LEFT - 12, end + 14, "round trips" if is_log else "Mbit/s", 11, SOFT, "end")
    aim = next((result["target"] for result in results if result.get("target")), None) if row != "A" else None
    if aim is not None:
        drawing.line(at(aim if is_log else aim * link), begin - 6, end, AIM, "4 3", 1.5)
        text = f"target: below {aim:g}" if is_log else f"target: {aim * 100:g} % of the link"
        drawing.text(at(aim if is_log else aim * link), end + 28, text, 11, AIM, "middle")
    for number, result in enumerate(results):
        y = begin + number * (BAR + GAP)
        is_ours = result["who"] == "ours"
        label = result["label"] + (f" ({result['note']})" if result.get("note") and not result.get("is_reckoned") else "")
        drawing.text(LEFT - 12, y + 15, label, 13, INK, "end", "bold" if is_ours else "normal")
        width = at(size(result)) - LEFT
        routes, x = result.get("routes") or [], LEFT
        carried = sum(route["bytes"] for route in routes)
        parts = [(width * route["bytes"] / carried, ROUTES[index % len(ROUTES)]) for index, route in enumerate(routes if carried else [])]
        for part, fill in parts or [(width, OURS if is_ours else PEER)]:
            drawing.bar(x, y, part, fill, not result["truthful"])
            x += part
        end_x = LEFT + width
        if allowed(result, results):
            drawing.line(at(allowed(result, results)), y - 3, y + BAR + 3, AIM, width=2)
            end_x = max(end_x, at(allowed(result, results)))
        drawing.text(end_x + 8, y + 15, figure(result), 12, INK if is_ours else SOFT, weight="bold" if is_ours else "normal")
    drawing.y = end + FOOT


def allowed(result, results):
    """Mbit/s that the uplinks of a result of row A allow, from what one was measured to."""
    if result["row"][0] != "A" or result.get("uplinks") in (None, 1):
        return None
    one = next((other for other in results if other["name"] == result["name"] and other.get("uplinks") == 1), None)
    if one is None:
        return None
    if result["unit"].startswith("of"):
        return result["rate_mbit"] / result["value"]
    return one["rate_mbit"] * result["uplinks"]


def figure(result):
    return value_of(result) + ("" if result["truthful"] else " *")


def value_of(result):
    if result["unit"] == "round trips":
        value = f"{result['value']:,.1f}" if result["value"] < 100 else f"{result['value']:,.0f}"
        return f"{'about ' if result.get('is_reckoned') else ''}{value}"
    rate = f"{result['rate_mbit']:.0f} Mbit/s"
    if result["unit"] == "of the link":
        return f"{rate}, {result['value'] * 100:.0f} %"
    if result["unit"].startswith("x"):
        return rate if result.get("uplinks") == 1 else f"{rate}, {result['value']:.2f} x"
    return f"{rate}, {result['value'] * 100:.0f} %"


def main():
    source = sys.argv[1] if len(sys.argv) > 1 else os.path.join(TOP, "target", "wan.jsonl")
    target = sys.argv[2] if len(sys.argv) > 2 else os.path.join(TOP, "docs", "wan.svg")
    conditions, results = read(source)
    drawing = Drawing()
    for row in PANELS:
        chosen = [result for result in results if result["row"][0] == row]
        if chosen:
            panel(drawing, row, sorted(chosen, key=lambda result: result["row"]))
    runs = sorted({len(result["all_seconds"]) for result in results})
    notes = [
        f"Emulated network, {conditions['date']}: {conditions['machine']}, Linux {conditions['kernel']}, {conditions['congestion']},"
        f" tcp_wmem {conditions['tcp_wmem']}, tcp_rmem {conditions['tcp_rmem']}.",
        f"{'Medians of ' + ' or '.join(map(str, runs)) + ' runs' if runs != [1] else 'One run of each'}."
        f" TCP carries at most {PAYLOAD * 100:g} % of a link's rate. {'; '.join(conditions['versions'].values())}.",
    ]
    if not all(result["truthful"] for result in results):
        notes.append("* Pale: more of the emulator's packets than 1 % left late, because the machine was busy with others.")
    for number, note in enumerate(notes):
        drawing.text(24, drawing.y + 12 + 15 * number, note, 10.5, SOFT)
    drawing.y += 15 * len(notes) + 14
    with open(target, "w") as file:
        file.write(drawing.svg())


if __name__ == "__main__":
    main()
