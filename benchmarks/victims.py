"""Processes to be killed, and those that outlive it: by a word of their command line, a mark in their environment."""

import os

import psutil


def named(process: psutil.Process, word: str) -> bool:
    """Whether a word is in a process's command line."""
    try:
        return word in " ".join(process.cmdline())
    except psutil.Error:
        return False


def processes_of(variable: str, value: str) -> list[psutil.Process]:
    """All that live and have an environment variable of this value, but for this process."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(variable) == value and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return found
