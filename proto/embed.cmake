# cmake -DNAME=x -DIN=file.bin -DOUT=file.c -P embed.cmake: bytes of a file as a C array.
file(READ ${IN} bytes HEX)
string(LENGTH "${bytes}" digits)
math(EXPR length "${digits} / 2")
string(REGEX REPLACE "(................................)" "\\1\n" bytes "${bytes}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
file(WRITE ${OUT} "#include <stddef.h>\n
extern const unsigned char ${NAME}[];\nextern const size_t ${NAME}_len;\n
const unsigned char ${NAME}[] = {\n${bytes}\n};\nconst size_t ${NAME}_len = ${length};\n")
