#!/usr/bin/env python3
"""What `kindred export` must say about a year of real orders, computed by brute force from the file and the definitions alone.

    tests/online_retail_check.py ORDERS.csv[.zst] --out DIR --as-of 2011-12-31 [--window N] [--top N]

Reads `order_id,member,item,quantity,unit_price_cents,timestamp_ms,status` (`-` is stdin) and writes DIR/also_bought.csv,
popularity.csv, points.csv and histories.csv in the format of the exports, so that they compare with `diff`, and figures.csv, which
it prints too. It stands for an import with `--map-status placed=completed --link-cancellations` into a directory with
`views.also_bought.window=N` (default: all items) and `views.also_bought.support_rounding=1`, everything else as by default.

It was written from DESIGN's section Definitions and the description of the import, not from the code that it checks, and uses
nothing but Python's standard library and the command `zstd`. Half a minute and 250 MB for 400,000 lines.
"""

import argparse
import csv
import io
import math
import os
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import date, datetime, timedelta, timezone

COLUMNS = ["order_id", "member", "item", "quantity", "unit_price_cents", "timestamp_ms", "status"]
POINTS_A_UNIT = 10  # multiplier 100 %: the file knows no tiers
HOLD_DAYS = 7


class Line:
    """A placed line: what was bought, and what is left of it once credit notes have taken their share."""

    __slots__ = ("number", "item", "quantity", "net")

    def __init__(self, number, item, quantity):
        self.number, self.item, self.quantity, self.net = number, item, quantity, quantity


class Order:
    """The rows of one order id; they may be apart in the file."""

    __slots__ = ("id", "member", "time", "lines")

    def __init__(self, order_id, member):
        self.id, self.member, self.time, self.lines = order_id, member, None, []


class Credit:
    """A cancelled row under an order id of its own."""

    __slots__ = ("order", "time", "row", "member", "item", "quantity")

    def __init__(self, order, row, member, item, quantity):
        self.order, self.time, self.row = order, None, row
        self.member, self.item, self.quantity = member, item, quantity


def rows(path):
    """The records of the file as (row number, field by name)."""
    process = None
    if path == "-":
        binary = sys.stdin.buffer
    elif path.endswith(".zst"):
        process = subprocess.Popen(["zstd", "-dc", path], stdout=subprocess.PIPE)
        binary = process.stdout
    else:
        binary = open(path, "rb")
    reader = csv.DictReader(io.TextIOWrapper(binary, encoding="utf-8", newline=""))
    if reader.fieldnames is None or sorted(reader.fieldnames) != sorted(COLUMNS):
        sys.exit(f"{path}: its columns are {reader.fieldnames}, not {COLUMNS}")
    yield from enumerate(reader, start=1)
    if process is not None and process.wait() != 0:
        sys.exit(f"{path}: zstd failed")


def read(path, figures):
    """Orders and credits with their times: an order's time, and a credit note's, is the earliest of its rows."""
    orders, credits, note_time = {}, [], {}
    placed_pairs = set()
    for row, field in rows(path):
        order_id, member, item = field["order_id"], field["member"], field["item"]
        quantity, price, time = int(field["quantity"]), int(field["unit_price_cents"]), int(field["timestamp_ms"])
        if quantity < 1 or price < 0 or not order_id or not item:
            sys.exit(f"{path}: row {row} is not what this script knows")
        status = field["status"]
        figures[f"{status} lines"] += 1
        figures[f"{status} units"] += quantity
        figures[f"{status} money"] += quantity * price
        if status == "placed":
            order = orders.setdefault(order_id, Order(order_id, member))
            if order.member != member:
                sys.exit(f"{path}: row {row}: order {order_id} has two members")
            order.time = time if order.time is None else min(order.time, time)
            order.lines.append(Line(len(order.lines) + 1, item, quantity))
            if member:
                placed_pairs.add((member, item))
        elif status == "cancelled":
            credits.append(Credit(order_id, row, member, item, quantity))
            note_time[order_id] = min(time, note_time.get(order_id, time))
        else:
            sys.exit(f"{path}: row {row}: status {status!r} is not what this script knows")
    for credit in credits:
        if credit.order in orders:
            sys.exit(f"{path}: order {credit.order} has placed and cancelled rows")
        credit.time = note_time[credit.order]
    figures["placed orders"] = len(orders)
    figures["credit notes"] = len(note_time)
    figures["members who placed"] = len({order.member for order in orders.values() if order.member})
    figures["items placed"] = len({line.item for order in orders.values() for line in order.lines})
    figures["member-item pairs placed"] = len(placed_pairs)
    figures["money placed less money cancelled"] = figures["placed money"] - figures["cancelled money"]
    return list(orders.values()), credits, placed_pairs


def link(orders, credits, figures):
    """Each credit takes from its member's lines of that item, placed earlier or at the same time, the latest (time, order, line)
    first; credits in the order of (time, row). What finds nothing to take back is left over."""
    lines = defaultdict(list)
    for order in orders:
        if order.member:
            for line in order.lines:
                lines[order.member, line.item].append((order.time, order.id, line.number, line))
    for of_member_and_item in lines.values():
        of_member_and_item.sort(key=lambda entry: entry[:3], reverse=True)
    for credit in sorted(credits, key=lambda credit: (credit.time, credit.row)):
        left = credit.quantity
        earlier = [line for time, _, _, line in lines.get((credit.member, credit.item), ()) if time <= credit.time]
        if earlier:
            figures["cancelled lines with an earlier purchase"] += 1
        for line in earlier:
            taken = min(left, line.net)
            line.net -= taken
            left -= taken
            if left == 0:
                break
        figures["linked units"] += credit.quantity - left
        if left > 0:
            figures["leftover lines"] += 1
            figures["leftover units"] += left
            if left == credit.quantity:
                figures["leftover lines that took nothing"] += 1
    figures["net units"] = sum(line.net for order in orders for line in order.lines)
    figures["lines that count"] = sum(line.net > 0 for order in orders for line in order.lines)


def day(ms):
    return datetime.fromtimestamp(ms // 1000, timezone.utc).date()


def baskets(orders, window):
    """owner → its `window` most recent items, by (latest time of a counting line descending, item ascending)."""
    latest = defaultdict(dict)
    for order in orders:
        bought = latest[owner(order)]
        for line in order.lines:
            if line.net > 0:
                bought[line.item] = max(order.time, bought.get(line.item, order.time))
    return {
        who: [item for item, _ in sorted(bought.items(), key=lambda entry: (-entry[1], entry[0]))[:window]]
        for who, bought in latest.items()
        if bought
    }


def owner(order):
    """A member, or a guest's order, which is an owner of its own."""
    return ("member", order.member) if order.member else ("guest", order.id)


def also_bought(of_member, top, figures):
    """Rows of the export. One item at a time: c(i, ·) by adding up the baskets that hold i."""
    holders = defaultdict(list)
    for basket in of_member.values():
        for item in basket:
            holders[item].append(basket)
    support = {item: len(baskets) for item, baskets in holders.items()}
    figures["baskets"] = len(of_member)
    figures["items in baskets"] = len(support)
    for item in sorted(support):
        together = Counter()
        for basket in holders[item]:
            together.update(basket)
        del together[item]
        figures["directed pairs"] += len(together)
        # The key of the cosine (damping 1/2) is c²/n_j: products first, one division, in doubles.
        keyed = [(-(float(c) * float(c)) / float(support[other]), other, c) for other, c in together.items()]
        keyed.sort()
        for rank, (_, other, c) in enumerate(keyed[:top], start=1):
            score = c / (math.sqrt(support[item]) * math.sqrt(support[other]))
            yield item, rank, other, f"{score:.6f}", c, support[item], support[other]


def popularity(orders):
    """item, kind, day → distinct owners with a counting line placed that day."""
    owners = defaultdict(set)
    for order in orders:
        for line in order.lines:
            if line.net > 0:
                owners[line.item, day(order.time)].add(owner(order))
    for item, on in sorted(owners):
        yield item, "purchase", on.isoformat(), len(owners[item, on])


def points(orders, as_of, figures):
    """member → points. A completed order without times of its own was paid and completed when it was placed: its points are
    available from that day, which comes before the end of the hold."""
    pending, available = Counter(), Counter()
    for order in orders:
        placed = day(order.time)
        available_from = min(placed, placed + timedelta(days=HOLD_DAYS))
        for line in order.lines:
            if order.member and line.net > 0 and placed <= as_of:
                (available if available_from <= as_of else pending)[order.member] += line.net * POINTS_A_UNIT
    figures["points"] = sum(pending.values()) + sum(available.values())
    for member in sorted(pending.keys() | available.keys()):
        yield member, pending[member], available[member], pending[member] + available[member], 0


def write(directory, name, header, records):
    with open(os.path.join(directory, f"{name}.csv"), "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(records)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("orders", help="the file; .zst is unpacked; - is stdin")
    parser.add_argument("--out", required=True, help="the folder to write to")
    parser.add_argument("--as-of", required=True, type=date.fromisoformat, help="the day that points are evaluated for")
    parser.add_argument("--window", type=int, default=1_000_000, help="views.also_bought.window (default 1000000)")
    parser.add_argument("--top", type=int, default=50, help="views.also_bought.top (default 50)")
    parser.add_argument("--placed-pairs", action="store_true", help="count the pairs of items before credit notes, too")
    arguments = parser.parse_args()

    figures = Counter()
    orders, credits, placed_pairs = read(arguments.orders, figures)
    if arguments.placed_pairs:
        placed = defaultdict(list)
        for member, item in placed_pairs:
            placed[member].append(item)
        counted = Counter()
        for _ in also_bought(placed, 0, counted):
            pass
        figures["item pairs with a member in common, placed"] = counted["directed pairs"] // 2
    link(orders, credits, figures)

    os.makedirs(arguments.out, exist_ok=True)
    neighbors = also_bought(baskets(orders, arguments.window), arguments.top, figures)
    write(
        arguments.out,
        "also_bought",
        ["item", "rank", "neighbor", "score", "co_count", "support_item", "support_neighbor"],
        neighbors,
    )
    write(arguments.out, "popularity", ["item", "kind", "day", "owners"], popularity(orders))
    of_members = points(orders, arguments.as_of, figures)
    write(arguments.out, "points", ["member", "pending", "available", "from_items", "from_invites"], of_members)
    # Orders are no interactions: a history shows what a storefront saw, and this file has nothing of that.
    write(arguments.out, "histories", ["member", "session", "item", "kind", "day", "at"], [])
    write(arguments.out, "figures", ["figure", "value"], sorted(figures.items()))
    csv.writer(sys.stdout, lineterminator="\n").writerows(sorted(figures.items()))


if __name__ == "__main__":
    main()
