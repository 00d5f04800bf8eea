"""Private helpers shared by the packages of difmd."""
