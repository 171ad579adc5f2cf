"""What SlideSAM costs on this machine: times, memory, and the originals beside them.

From the ground up:
- `machine`, `clock`, `peak`, `apart`: where, how long, how much, and in a process of its own
- `subjects`, `phantom`: the networks, and a volume of any size with an object in it
- `encoding`, `runs`, `startup`, `large`, `agreement`, `profiling`: what is measured
- `suite`, `table`: all of it, and the table for people
"""
