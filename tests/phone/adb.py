#!/usr/bin/env python3
"""A stand-in for `adb` with a phone behind it, whose disk is the folder `disk` beside it.

ADB_MOOD says what goes wrong. `printed.txt` beside it is what `benchmark_model` printed
on a Pixel 6.
"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(sys.argv[0]).absolute().parent
MOOD = os.environ.get("ADB_MOOD", "")
PRINTED = (HERE / "printed.txt").read_text()
STATES = {"unauthorized": "unauthorized", "offline": "offline"}
PIXEL_6 = "usb:1-1 product:oriole model:Pixel_6 device:oriole transport_id:1"
PIXEL_7 = "usb:1-2 product:panther model:Pixel_7 device:panther transport_id:2"
FOLDER = "/data/local/tmp"


def there(path):
    "Where a path of the phone lies."
    return f"{HERE}/disk{path}"


def devices():
    "What `adb devices -l` prints."
    print("List of devices attached")
    if MOOD == "version":
        print("1.2.3")
        return
    if MOOD != "none": print(f"1A2B3C         {STATES.get(MOOD, 'device')} {PIXEL_6}")
    if MOOD == "two": print(f"9Z8Y7X         device {PIXEL_7}")


def temperature():
    "What `dumpsys thermalservice` prints."
    if MOOD == "version": return "Thermal Status: 9 Temperature{mValue=1.2.3, mType=3, mName=X"
    return "Thermal Status: 0\n\tTemperature{mValue=31.5, mType=3, mName=VIRTUAL-SKIN, mStatus=0}"


def benchmark(serial):
    "What the tool prints; the exit code."
    if MOOD == "disconnect":
        print(f"adb: device '{serial}' not found", file=sys.stderr)
        return 1
    if MOOD == "crash":
        print("Segmentation fault")
        return 139
    printed = {"garbage": "\x00\x01 nothing to read here",
               "numbers": PRINTED.replace("921.3", "1.2.3"),
               "cpu": PRINTED.replace("be completely", "not be"),
               "part": PRINTED.replace("be completely", "be partially").replace(
                   "Explicitly", "INFO: Replacing 60 out of 77 node(s) with delegate "
                   "(TfLiteNnapiDelegate) node, yielding 3 partitions for the whole graph.\n"
                   "Explicitly")}
    print(printed.get(MOOD, PRINTED))
    return 0


def shell(line, serial):
    "A line for the shell of the phone; the exit code."
    with open(f"{HERE}/disk.log", "a") as log: log.write(line + "\n")
    if "dumpsys" in line:
        print(temperature())
        return 0
    if "--graph" in line: return benchmark(serial)
    return subprocess.run(["sh", "-c", line.replace(FOLDER, there(FOLDER))]).returncode


def main(words):
    "The exit code."
    serial = words[1] if words[:1] == ["-s"] else None
    command, *words = words[2:] if serial else words
    if command == "devices": devices()
    if command == "pull": Path(words[1]).write_text("node type, avg_ms\nCONV_2D, 0.5\n")
    if command == "push":
        shutil.copy(words[0], there(words[1]))
        print(f"{words[0]}: 1 file pushed, 0 skipped. 50.1 MB/s (4600000 bytes in 0.088s)")
    # as adb does: the words become one line
    return shell(" ".join(words), serial) if command == "shell" else 0


sys.exit(main(sys.argv[1:]))
