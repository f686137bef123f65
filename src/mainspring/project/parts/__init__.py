"""Parts of an opened project, room by room: each file's class goes on from that of the rooms which it builds on."""
