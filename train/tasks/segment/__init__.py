"""Parts of the recipe of segmentation: its task, pictures with classes, folders of pictures."""
