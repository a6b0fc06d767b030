"""What a bundle does with images: classes, and how many are right."""
