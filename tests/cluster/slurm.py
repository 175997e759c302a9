"A Slurm of two virtual nodes on this host, without a database; it stops all that it started."
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

PROGRAMS = ("slurmctld", "slurmd", "srun", "sbatch", "munged")
CONFIG = Path("/etc/slurm/slurm.conf") # the inner srun of a job looks nowhere else
OURS = "# edgetpu-repro: tests/cluster"
NODES = ("n1", "n2")
TEXT = """{ours}
ClusterName=edgetpu
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdSpoolDir={folder}/%n
SlurmdTimeout=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
MinJobAge=43200
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs=1 RealMemory=8000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2} CPUs=1 RealMemory=8000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not():
    "Why no Slurm can be started here; empty where one can."
    absent = [p for p in PROGRAMS if not shutil.which(p, path=f"{os.environ['PATH']}:/usr/sbin")]
    packages = "slurmctld slurmd slurm-client munge"
    if absent: return f"{', '.join(absent)} not installed (Debian: {packages})"
    if os.geteuid(): return "starting Slurm needs root"
    if CONFIG.exists() and not CONFIG.read_text().startswith(OURS):
        return f"{CONFIG} is there: this host has a Slurm of its own"
    return ""


def free_ports(count):
    "Ports that nobody listens on."
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets: s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets: s.close()
    return ports


def until(true, what, seconds=300):
    "Wait for something; fails where it does not come, for then nothing else would end the test."
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.5)


class Slurm:
    "The cluster; use it in `with`."
    def __init__(self, folder):
        self.folder, self.daemons, self.ports = Path(folder), {}, free_ports(3)

    def _start(self, name, *command):
        with open(self.folder / f"{name}.out", "w") as out:
            child = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        self.daemons[name] = child

    def __enter__(self):
        self.folder.mkdir(exist_ok=True)
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        port, n1, n2 = self.ports
        host = socket.gethostname().split(".")[0]
        CONFIG.parent.mkdir(exist_ok=True)
        names = dict(ours=OURS, host=host, folder=self.folder, port=port, n1=n1, n2=n2)
        CONFIG.write_text(TEXT.format(**names))
        try: self._up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _up(self):
        own = self.folder
        files = [f"--{kind}-file={own}/munge.{kind}" for kind in ("key", "pid", "log", "seed")]
        self._start("munge", "/usr/sbin/munged", "--foreground", "--force",
                    f"--socket={own}/munge.socket", *files)
        until((own / "munge.socket").exists, "munged")
        self._start("slurmctld", "/usr/sbin/slurmctld", "-D")
        for node in NODES: self.start(node)
        until(lambda: self.nodes("idle") == len(NODES), f"two idle nodes; see {own}")

    def start(self, node):
        "Start a node."
        self._start(node, "/usr/sbin/slurmd", "-D", "-N", node)

    def say(self, *command):
        "What one of Slurm's commands prints."
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stdout.strip()

    def nodes(self, state):
        "How many nodes are in a state: `idle`, or `down` where nobody heard of them for a while."
        return self.say("sinfo", "-h", "-N", "-t", state, "-o", "%N").count("n")

    def jobs(self, *options):
        "{job: state}, those that ended included."
        lines = self.say("squeue", "-h", "-t", "all", "-r", "-o", "%i %T", *options).splitlines()
        return dict(line.split() for line in lines)

    def restarts(self):
        "How many jobs began anew, for they had lost their node."
        return self.say("scontrol", "show", "job").count("Restarts=1")

    def _of(self, node=None):
        "The processes of the jobs of a node, or of all nodes, with the daemons that watch them."
        found = {}
        for p in psutil.process_iter():
            with suppress(psutil.Error):
                environ = p.environ()
                if environ.get("SLURM_CLUSTER_NAME") != "edgetpu": continue
                if node and environ.get("SLURMD_NODENAME") != node: continue
                if "SLURMD_NODENAME" not in environ: continue
                found[p.pid] = p
                parent = p.parent()
                if parent and parent.name().startswith("slurmstepd"): found[parent.pid] = parent
        return list(found.values())

    def kill(self, node):
        "A node loses its power: its daemon and all that runs on it are gone at once."
        daemon = self.daemons.pop(node)
        daemon.kill()
        daemon.wait()
        for p in self._of(node):
            with suppress(psutil.Error): p.kill()

    def __exit__(self, *_):
        for name in list(self.daemons)[::-1]:
            child = self.daemons.pop(name)
            with suppress(ProcessLookupError): os.kill(child.pid, signal.SIGKILL)
            child.wait()
        for p in self._of():
            with suppress(psutil.Error): p.kill()
        CONFIG.unlink(missing_ok=True)
