#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of scripts/graft: what it does to a tree, and when it leaves one alone.

The ways of the graft are tried on a host of three short files with steps of
its own; that the real steps fit the real host, on the files that they touch.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from colokit import edits, graft, mends             # noqa: E402
from colokit.edits import Cut, Insert, Put, Remove, Replace, Step   # noqa: E402
from colokit.machine import Failure                 # noqa: E402
from colokit.series import STABLE                   # noqa: E402

HOST = {
    "VERSION": "0.1.5\n",
    "one.c": "void f(void)\n{\n    go();\n}\n\nvoid g(void)\n{\n    go();\n    stop();\n}\n",
    "two.c": "alpha\nbeta\ngamma\ndelta\n",
    "old.c": "the host's\n",
    "gone.c": "of no use\n",
}

FAKE_MENDS = (
    Step("louder", "a reason", test="some test", edits=(
        Replace("one.c", "go();", "GO();", within="void g(void)"),)),
    Step("later", "another reason", test="another test", edits=(
        Insert("one.c", "stop();", "    wait_for_it();\n", before=True),)),
)


def fake_suite(root):
    return (
        Step("files", "ours", edits=(Put("sub/new.c", b"new\n"),
                                     Put("old.c", b"ours\n", replaces=True),
                                     Remove("gone.c"))),
        Step("letters", "fewer", edits=(Cut("two.c", "beta", "gamma", text="b to c\n"),
                                        Insert("two.c", "delta", "epsilon\n"))),
    )


class FakeTree(unittest.TestCase):
    """A tree of a series that the tables are told of."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.tree = Path(directory.name)
        for name, text in HOST.items():
            (self.tree / name).write_text(text)
        for table, value in ((graft.MENDS, FAKE_MENDS), (graft.STEPS, fake_suite)):
            patch = mock.patch.dict(table, {"0.1": value})
            patch.start()
            self.addCleanup(patch.stop)

    def snapshot(self):
        """Every file with its content and its time of change."""
        return {path.relative_to(self.tree): (path.read_bytes(), path.stat().st_mtime_ns)
                for path in self.tree.rglob("*") if path.is_file()}

    def assert_refused(self, *words, **options):
        """Grafting fails with these words in the message, and changes nothing."""
        before = self.snapshot()
        with self.assertRaises(Failure) as caught:
            graft.lay_over(self.tree, **options)
        for word in words:
            self.assertIn(word, str(caught.exception))
        self.assertEqual(self.snapshot(), before)

    def text(self, name):
        return (self.tree / name).read_text()


class TestGraft(FakeTree):
    def test_all_kinds_of_edits(self):
        graft.lay_over(self.tree)
        self.assertEqual(self.text("one.c"),
                         "void f(void)\n{\n    go();\n}\n\nvoid g(void)\n{\n    GO();\n"
                         "    wait_for_it();\n    stop();\n}\n")
        self.assertEqual(self.text("two.c"), "alpha\nb to c\ndelta\nepsilon\n")
        self.assertEqual(self.text("old.c"), "ours\n")
        self.assertEqual(self.text("sub/new.c"), "new\n")
        self.assertFalse((self.tree / "gone.c").exists())

    def test_twice_changes_nothing(self):
        graft.lay_over(self.tree)
        before = self.snapshot()
        self.assertIsNone(graft.lay_over(self.tree))
        self.assertEqual(self.snapshot(), before)

    def test_stock_is_the_mends_alone(self):
        graft.lay_over(self.tree, stock=True)
        self.assertIn("GO();", self.text("one.c"))
        for name in ("two.c", "old.c", "gone.c"):
            self.assertEqual(self.text(name), HOST[name])

    def test_without_leaves_one_mend_out(self):
        graft.lay_over(self.tree, without=["louder"])
        self.assertNotIn("GO();", self.text("one.c"))
        self.assertIn("wait_for_it();", self.text("one.c"))

    def test_without_takes_mends_only(self):
        self.assert_refused("no such mend", "louder", without=["letters"])

    def test_mode_of_a_file_stays(self):
        os.chmod(self.tree / "one.c", 0o755)
        graft.lay_over(self.tree)
        self.assertEqual((self.tree / "one.c").stat().st_mode & 0o777, 0o755)

    def test_list_changes_nothing(self):
        before = self.snapshot()
        with mock.patch("sys.stdout") as out:
            graft.print_list(self.tree, stock=False, without=[])
        said = "".join(call.args[0] for call in out.write.call_args_list)
        for word in ("mend louder", "a reason", "some test", "step letters", "sub/new.c: new"):
            self.assertIn(word, said)
        self.assertEqual(self.snapshot(), before)


class TestRefusal(FakeTree):
    def test_no_tree(self):
        (self.tree / "VERSION").unlink()
        self.assert_refused("not a QEMU source tree")

    def test_unknown_version(self):
        (self.tree / "VERSION").write_text("6.0.1\n")
        self.assert_refused("6.0.1", "7.2")

    def test_changed_anchor(self):
        (self.tree / "two.c").write_text("alpha\nbeta\ngamma\nDELTA\n")
        self.assert_refused("two.c", "letters", '"delta"', "not found")

    def test_anchor_found_twice(self):
        (self.tree / "two.c").write_text("alpha\nbeta\ngamma\ndelta\ndelta\n")
        self.assert_refused("two.c", "letters", "2 times")

    def test_end_of_a_cut_missing(self):
        (self.tree / "two.c").write_text("gamma\nbeta\ndelta\n")
        self.assert_refused("two.c", '"gamma" is not found behind "beta"')

    def test_missing_file(self):
        (self.tree / "old.c").unlink()
        self.assert_refused("old.c", "files", "missing")

    def test_file_in_the_way(self):
        (self.tree / "sub").mkdir()
        (self.tree / "sub/new.c").write_text("somebody else's\n")
        self.assert_refused("sub/new.c", "there already")

    def test_half_grafted_by_text(self):
        (self.tree / "one.c").write_text(HOST["one.c"].replace("    stop", "    wait_for_it();\n    stop"))
        self.assert_refused("half grafted", "one.c", "later", "anew")

    def test_half_grafted_by_files(self):
        (self.tree / "sub").mkdir()
        (self.tree / "sub/new.c").write_text("new\n")
        self.assert_refused("half grafted", "sub/new.c", "files")

    def test_grafted_without_a_stamp(self):
        graft.lay_over(self.tree)
        (self.tree / graft.STAMP).unlink()
        self.assert_refused("half grafted")

    def test_broken_off(self):
        plan = graft.make_plan(self.tree)
        with mock.patch.object(graft, "write_file", wraps=graft.write_file) as write:
            write.side_effect = [mock.DEFAULT, mock.DEFAULT, OSError("no space")]
            with self.assertRaises(OSError):
                graft.apply(plan, self.tree)
        self.assert_refused("half grafted", "broken off", "anew")

    def test_changed_afterwards(self):
        graft.lay_over(self.tree)
        (self.tree / "two.c").write_text("something else\n")
        self.assert_refused("changed since", "two.c")

    def test_grafted_in_another_way(self):
        graft.lay_over(self.tree, stock=True)
        self.assert_refused("the mends alone", "the whole suite")
        self.assert_refused("without louder", stock=True, without=["louder"])

    def test_grafted_by_another_version(self):
        graft.lay_over(self.tree)
        newer = (Step("files", "ours", edits=(Put("sub/new.c", b"newer\n"),)),)
        with mock.patch.dict(graft.STEPS, {"0.1": lambda root: newer}):
            self.assert_refused("another version")

    def test_senseless_stamp(self):
        (self.tree / graft.STAMP).write_text("[]")
        self.assert_refused(graft.STAMP)

    def test_steps_in_each_others_way(self):
        clash = (Step("more", "x", edits=(Cut("two.c", "gamma", "delta"),)),)
        with mock.patch.dict(graft.STEPS, {"0.1": lambda root: fake_suite(root) + clash}):
            self.assert_refused("two.c", "letters", "more")

    def test_program_says_so_and_fails(self):
        (self.tree / "VERSION").write_text("6.0.1\n")
        result = subprocess.run([ROOT / "scripts/graft", self.tree], capture_output=True, text=True)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"^graft: .*6\.0\.1")
        self.assertNotIn("Traceback", result.stderr)


class TestSeries(unittest.TestCase):
    """The real steps on what they touch of the real host, of each series that is asked for."""

    SERIES = os.environ.get("COLO_SERIES", " ".join(STABLE)).split()

    def tree_of(self, series):
        """A new tree with the files that the steps touch, as they are in the pristine one."""
        pristine = ROOT / "build" / f"qemu-{series}" / "pristine"
        if not pristine.exists():
            self.skipTest(f"{pristine} is not there; scripts/build-qemu fetches it")
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        tree = Path(directory.name)
        steps = graft.choose_steps(series, False, (), ROOT)
        for name in {"VERSION"} | {edit.file for step in steps for edit in step.edits}:
            if (pristine / name).exists():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(pristine / name, tree / name)
        return tree

    def test_all_steps_fit(self):
        for series in self.SERIES:
            with self.subTest(series):
                tree = self.tree_of(series)
                self.assertIsNotNone(graft.lay_over(tree))
                self.assertIsNone(graft.lay_over(tree))

    def test_each_mend_stands_alone(self):
        for series in self.SERIES:
            with self.subTest(series):
                tree = self.tree_of(series)
                names = [mend.name for mend in mends.MENDS[series]]
                for name in names:
                    plan = graft.make_plan(tree, stock=True, without=[n for n in names if n != name])
                    self.assertEqual([step.name for step in plan.steps], [name])
                    graft.make_plan(tree, without=[name])

    def test_each_mend_is_seen_without_a_stamp(self):
        for series in self.SERIES:
            with self.subTest(series):
                names = [mend.name for mend in mends.MENDS[series]]
                for name in names:
                    tree = self.tree_of(series)
                    others = [n for n in names if n != name]
                    graft.lay_over(tree, stock=True, without=others)
                    (tree / graft.STAMP).unlink()
                    with self.assertRaises(Failure, msg=name):
                        graft.make_plan(tree, stock=True)

    def is_a_test(self, name: str) -> bool:
        wanted, places = ((f'"{name}"', "qtest/*.c") if name.startswith("/") else (f"def {name}(", "pair/*.py"))
        return any(wanted in path.read_text() for path in (ROOT / "tests").glob(places))

    def test_every_mend_names_its_test(self):
        for steps in mends.MENDS.values():
            for mend in steps:
                self.assertIn(f"\n{mend.name}\n", (ROOT / "docs/host-mends.rst").read_text())
                names = re.findall(r"\btest_\w+|/colo/[\w/-]+", mend.test)
                self.assertTrue(names, mend.name)
                for name in names:
                    self.assertTrue(self.is_a_test(name), f"{mend.name}: there is no {name}")


class TestAnchors(unittest.TestCase):
    def test_whole_lines(self):
        text = "one\ntwo three\nfour"
        self.assertEqual(edits.Insert("f", "three", "x\n").span(text), edits.Span(14, 14, "x\n"))
        self.assertEqual(edits.Insert("f", "three", "x\n", before=True).span(text),
                         edits.Span(4, 4, "x\n"))
        self.assertEqual(edits.Cut("f", "two", "two").span(text), edits.Span(4, 14, ""))
        self.assertEqual(edits.Cut("f", "three", None).span(text), edits.Span(4, 18, ""))

    def test_anchor_that_ends_its_line(self):
        self.assertEqual(edits.Insert("f", "one\n", "x\n").span("one\ntwo\n"),
                         edits.Span(4, 4, "x\n"))


if __name__ == "__main__":
    unittest.main()
