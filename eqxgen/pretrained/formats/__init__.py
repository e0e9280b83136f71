"""Files of published weights, one format a file: each gives its arrays by name, of which parts are read on demand."""
