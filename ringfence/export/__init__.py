"""The door to other people's collectors: conversations go out, one file per kind of receiver."""
