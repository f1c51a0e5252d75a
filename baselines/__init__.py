"""One file per method. A file with a leading underscore is a shared adapter, not a method."""
