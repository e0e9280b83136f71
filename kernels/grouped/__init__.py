"""Matrix products of rows with the matrix of each row's group."""

from .api import grouped_matmul as grouped_matmul
