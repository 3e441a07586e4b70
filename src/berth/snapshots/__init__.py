"""File system states of images and containers, behind one small driver interface."""
