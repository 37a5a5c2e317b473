"""A process that draws on a shared purse by its chain, in a folder with the others: `python -m` with URL FOLDER NAME.

Its chain is a file of lines, each written before what it says is done: a lease and its units (`l 7 64`), a draw
(`d 7`), a lease that is over (`s 7`), a number that came to nothing (`n 8`). What it draws is a byte at the end of
`origin`, which all of them share. It may be killed at any time; its next life goes on from the chain.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

from addons.pools.opening import open_ledger
from addons.pools.protocol import LedgerError, NotJoined
from kernel.leases import Ask, Held, Purse, Settled, Total, Why

PURSE = Purse("llm", "requests", "", 0)


class Chain:
    """What a holder has written, read again at the begin of each life."""

    def __init__(self, path):
        self.lives, self.amounts, self.drawn, self.over, self.numbers = 0, {}, Counter(), set(), []
        for line in path.read_text().splitlines() if path.exists() else []:
            self._read(line)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, *words):
        line = " ".join(map(str, words))
        os.write(self._file, line.encode() + b"\n")
        self._read(line)

    def _read(self, line):
        word, *numbers = line.split()
        number, *more = map(int, numbers or ("0",))
        if word == "life":
            self.lives += 1
        elif word == "d":
            self.drawn[number] += 1
        elif word == "s":
            self.over.add(number)
        else:
            self.numbers.append(number)
            if word == "l":
                self.amounts[number] = more[0]

    @property
    def open(self):
        return [number for number in self.amounts if number not in self.over]

    @property
    def used(self):
        return sum(self.drawn[number] for number in self.over)


class Drawing:
    def __init__(self, url, folder, name, limit, want):
        self._ledger, self._holder, self._limit, self._want = open_ledger(url), f"governor/x/{name}", limit, want
        self._chain = Chain(folder / f"{name}.chain")
        self._origin = os.open(folder / "origin", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._chain.write("life")
        self._run, self._asks, self._beaten = f"r{self._chain.lives}", 0, 0.0

    def begin(self):
        left = self._surely(self._ledger.join, self._holder, self._run, {})
        for held in left:
            if held.lease not in self._chain.numbers:
                self._chain.write("n", held.lease)
        for number in self._chain.open:
            self._chain.write("s", number)
        over = [Settled(held.lease, self._chain.drawn[held.lease]) for held in left]
        self._surely(self._ledger.settle, self._holder, over)
        self._repost()

    def draw_all(self):
        """Until all is gone."""
        while True:
            self._beat()
            grant = self._asked()
            if grant.amount:
                self._draw(grant)
            elif grant.why is Why.EXHAUSTED:
                balance, = self._surely(self._ledger.overview).balances
                if balance.spent >= self._limit:
                    return
            time.sleep(0.002)

    def _draw(self, grant):
        self._chain.write("l", grant.lease, grant.amount)
        for _ in range(grant.amount if random.random() < 0.9 else grant.amount // 2):
            self._chain.write("d", grant.lease)
            os.write(self._origin, b".")
        self._chain.write("s", grant.lease)
        self._surely(self._ledger.settle, self._holder, [Settled(grant.lease, self._chain.drawn[grant.lease])])

    def _asked(self):
        self._asks += 1
        ask = Ask(self._asks, PURSE, self._limit, 1, self._want)
        while True:
            grant, = self._surely(lambda: self._ledger.acquire(
                self._holder, self._run, [ask], time.time_ns() // 1000))
            if grant.why is not Why.RECOVERING:
                return grant
            self._beat(at_once=True)
            time.sleep(0.01)

    def _beat(self, *, at_once=False):
        if at_once or time.monotonic() - self._beaten > 0.2:
            self._beaten = time.monotonic()
            beat = self._surely(lambda: self._ledger.beat(self._holder, self._run, 0, time.time_ns() // 1000, {}))
            if beat.repost:
                self._repost()

    def _repost(self):
        leases = [Held(number, PURSE, self._chain.amounts[number], self._run, 0) for number in self._chain.open]
        newest = max(self._chain.numbers, default=0)
        if newest and newest not in self._chain.open:
            leases.append(Held(newest, PURSE, 0, self._run, 0))
        self._surely(self._ledger.repost, self._holder, [Total(PURSE, self._limit, self._chain.used)], leases)

    def _surely(self, call, *arguments):
        """The answer, however often it must be asked for."""
        while True:
            try:
                return call(*arguments)
            except NotJoined:
                self._surely(self._ledger.join, self._holder, self._run, {})
            except LedgerError:
                time.sleep(0.02)


if __name__ == "__main__":
    drawing = Drawing(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    drawing.begin()
    drawing.draw_all()
