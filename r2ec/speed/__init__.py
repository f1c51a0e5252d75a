"""How fast R2ec is on this machine, against the plain way to do the same work (`make speed`)."""
