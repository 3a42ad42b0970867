def write(name, rows):
    pass
