"""Files from outside: limits of size, damaged content, what texts may stand for, and a log of what is broken."""
