"""No answer is run, and the guard would refuse it."""

from __future__ import annotations

import json
import subprocess
import sys

INJECTIONS = [
    "__import__('os').system('touch {path}')",
    r"\text{{__import__('os').system('touch {path}')}}",
    "[c for c in ().__class__.__base__.__subclasses__()][0]",
    "eval(\"open('{path}','w')\")",
    "open('{path}','w')",
    "1/2 + __import__('pathlib').Path('{path}').touch()",
    "x=__import__('os').system('touch {path}')",
    "(lambda: __import__('os').mkdir('{path}'))()",
    r"\operatorname{{open}}('{path}', 'w')",
    "$ __import__('os').system('touch {path}') $",
    "0.5; __import__('os').system('touch {path}')",
    "1,000,__import__('os').system('touch {path}')",
]


def test_no_answer_is_run(pool, tmp_path):
    path = tmp_path / "touched"
    for injection in INJECTIONS:
        text = injection.format(path=path)
        for response in (rf"\boxed{{{text}}}", f"Answer: {text}", f"#### {text}"):
            for gold in ("5", text):
                verdict = pool.judge("math500", response, gold)
                assert verdict.status in ("ok", "unparsable"), (response, verdict)
        pool.group("math500", [text, "5", r"\frac{1}{2}"])
    assert not path.exists()


def test_nothing_tries_to_make_code_of_an_answer_and_the_guard_would_refuse_it():
    script = r"""
import json, os, subprocess, sys
from recipe.grading import verify, worker
guard = worker.Guard()
def ask(gold, answer):
    request = {"kind": "math", "gold": gold, "answer": answer, "both_ways": True}
    return worker.answer(request, guard, 1 << 40), list(guard.refused)
for answer in json.loads(sys.argv[1]):
    for pair in ((answer, "x"), ("x", answer), (answer, answer)):
        reply, refused = ask(*pair)
        assert refused == [] and reply["status"] != "error", (pair, reply, refused)
import sympy
attempts = {
    "compile": lambda *_, **__: eval("1+1"),
    "exec": lambda *_, **__: exec(code),
    "recipe.grading.text": lambda *_, **__: sympy.sympify("x + 1"),
    "os.system": lambda *_, **__: os.system("true"),
    "subprocess.Popen": lambda *_, **__: subprocess.run(["true"]),
}
code = compile("1", "<string>", "exec")
for event, attempt in attempts.items():
    verify.math_verify.verify = attempt
    reply, refused = ask("x", "2")
    expected = {"status": "error", "correct": False, "detail": f"refused: {event}"}
    assert (refused, reply) == ([event], expected), event
print("checked")
"""
    texts = [injection.format(path="/nowhere/x") for injection in INJECTIONS]
    run = subprocess.run([sys.executable, "-c", script, json.dumps(texts)], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "checked", run.stderr
