# SPDX-License-Identifier: BSD-2-Clause
"""The end of what a fixture has made: every step is taken, whatever comes of the others."""


class Undo:
    """Steps that are taken from the last to the first; what fails is told at the end, in one message."""

    def __init__(self):
        self.steps = []

    def add(self, what, step):
        self.steps.append((what, step))

    def run(self):
        said = []
        while self.steps:
            what, step = self.steps.pop()
            try:
                step()
            except Exception as error:
                said.append(f"{what}: {error or type(error).__name__}")
        assert not said, "not taken down as it should be:\n" + "\n".join(said)
