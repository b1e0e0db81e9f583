"""The TCP server, its clients and the protocol between them."""
