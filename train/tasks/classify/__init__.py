"""Parts of the recipe of image classifiers: nets, pictures, classified folders."""
