"""How numbers look, on the console and on pages; knows no experiment."""
