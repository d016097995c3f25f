"""What `import agnes` offers."""

import ast
import inspect

import agnes


def test_every_public_name_is_there():
    for name in agnes._HOME:
        assert getattr(agnes, name) is not None
        assert name in dir(agnes)


def test_type_checkers_see_the_same_names():
    tree = ast.parse(inspect.getsource(agnes))
    seen = {
        alias.asname
        for block in ast.walk(tree)
        if isinstance(block, ast.If)
        for statement in ast.walk(block)
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert seen == set(agnes._HOME)


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(agnes, "Modell")
