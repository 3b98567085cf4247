# For developers: ninja -C build/dev format | format-check | tidy. None is part of a build, and each
# says when its tool is missing; deploy/install-packages develop brings both.
add_custom_target(format COMMAND sh ${PROJECT_SOURCE_DIR}/tests/format.sh fix ${PROJECT_SOURCE_DIR}
                  COMMENT "clang-format in place" USES_TERMINAL VERBATIM)
add_custom_target(format-check
                  COMMAND sh ${PROJECT_SOURCE_DIR}/tests/format.sh check ${PROJECT_SOURCE_DIR}
                  COMMENT "clang-format, looking only" USES_TERMINAL VERBATIM)
add_custom_target(tidy COMMAND sh ${PROJECT_SOURCE_DIR}/tests/tidy.sh ${PROJECT_BINARY_DIR}
                  COMMENT "clang-tidy" USES_TERMINAL VERBATIM)
