"""Documented parameters for the API pages: an extension of griffe, which mkdocstrings reads with.

nbdev's docments are comments behind parameters, fields and the return type; here they become
sections of the docstring.
"""
import ast
import io
import tokenize

from griffe import Docstring, Extension, Parser


def comments(path) -> dict: # {line: text}
    "The comments of a file."
    with open(path, "rb") as file: content = file.read()
    tokens = tokenize.tokenize(io.BytesIO(content).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


OPTIONS = dict(warnings=False, returns_named_value=False) # types are in the signature or nowhere


class Docments(Extension):
    "Turn comments behind parameters into sections of docstrings."
    def __init__(self): self.files = {}

    def comments(self, thing) -> dict:
        "The comments of the file that holds a function or a class."
        path = str(thing.filepath)
        if path not in self.files: self.files[path] = comments(path)
        return self.files[path]

    def on_function_instance(self, *, node, func, agent, **kwargs):
        "Parameters and what is returned."
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)): return
        found, arguments = self.comments(func), node.args
        given = [*arguments.posonlyargs, *arguments.args, arguments.vararg, *arguments.kwonlyargs,
                 arguments.kwarg]
        given = [a for a in given if a and a.arg not in ("self", "cls")]
        rows = [(a.arg, found.get(a.end_lineno, "")) for a in given if a.end_lineno != node.lineno]
        after = max([node.lineno, *(a.end_lineno + 1 for a in given if rows)])
        ends = [found[line] for line in range(after, node.body[0].lineno) if line in found]
        sections = []
        if any(text for _, text in rows):
            listed = "\n".join(f"    {name}: {text or '-'}" for name, text in rows)
            sections.append(f"Parameters:\n{listed}")
        if ends: sections.append(f"Returns:\n    {ends[-1]}")
        self.append(func, sections)

    def on_attribute_instance(self, *, node, attr, agent, **kwargs):
        "A field of a record."
        text = self.comments(attr).get(attr.endlineno) if attr.endlineno else None
        if text and not attr.docstring: attr.docstring = Docstring(text, parent=attr)

    @staticmethod
    def append(thing, sections):
        "Put sections behind the docstring."
        if not sections: return
        text = thing.docstring.value if thing.docstring else ""
        whole = "\n\n".join([text, *sections]).strip()
        thing.docstring = Docstring(whole, parent=thing, lineno=thing.lineno,
                                    parser=Parser.google, parser_options=OPTIONS)
