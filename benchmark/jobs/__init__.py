"""One job of the workflow each: what it is made of, what it takes, how it runs and what it records."""
