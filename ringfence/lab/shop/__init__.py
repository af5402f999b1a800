"""A shop in the shape of Sock Shop: what it is made of, and the program it runs."""
