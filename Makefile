.PHONY: install test slow lint docs

install:
	pip install -e ".[test]"

test:
	pytest

slow:
	pytest -m slow

lint:
	ruff check .
	ruff format --check .
	mypy

docs:
	python tests/helpers/readme_commands.py
