import scythe
from scythe import FileRefs

data = FileRefs(scythe.files("hourly"), "hourly")
for _features, item in data:
    print(item.height)  # refused
