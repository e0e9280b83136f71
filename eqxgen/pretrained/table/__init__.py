"""One declarative mapping a family, between the arrays of published files and the parameters of our model.

Every parameter of the model is filled, and every array of the files is read or listed as ignored with its reason. The
same table reads and writes, to the bit. Leaves are read one at a time, and of a sharded one each device is given its
part alone.
"""

from eqxgen.pretrained.table.coverage import Coverage as Coverage
from eqxgen.pretrained.table.matching import Matched as Matched
from eqxgen.pretrained.table.matching import match as match
from eqxgen.pretrained.table.reading import filled as filled
from eqxgen.pretrained.table.reading import lazy as lazy
from eqxgen.pretrained.table.reading import placed as placed
from eqxgen.pretrained.table.reading import read as read
from eqxgen.pretrained.table.routes import names_path as names_path
from eqxgen.pretrained.table.routes import paths as paths
from eqxgen.pretrained.table.rows import Row as Row
from eqxgen.pretrained.table.rows import Table as Table
from eqxgen.pretrained.table.rows import Tied as Tied
from eqxgen.pretrained.table.writing import written as written
