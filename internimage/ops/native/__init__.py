"""C++ sources shared by the operators, and the loader of the library built from them."""
