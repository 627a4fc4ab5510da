"""The agent over sockets: a pure codec, a pure protocol, routes, and the server round them."""
