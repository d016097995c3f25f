"""What a reference may do instead of its work."""

import os
import time


def crash(*_):
    os.abort()


def linger(*_):
    time.sleep(60)


def hoard(*_):
    return {"outputs": [bytearray(1 << 33)]}


def lie(*_):
    return {"version": "\x1b[31m", "outputs": []}
