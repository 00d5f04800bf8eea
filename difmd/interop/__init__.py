"""What other packages see of difmd, one file a partner; none is imported before it is asked for."""
