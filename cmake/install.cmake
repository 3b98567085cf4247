# One library for users, libmixrank: the objects of all layers in one shared file that exports only
# what carries MR_API, and the public headers. tests/install.sh checks what is installed.
#
# The soname is the version up to the part whose change may break programs: 0.MINOR before 1.0.
set(MR_PUBLIC_LAYERS core engine encoders featurestore model pipeline)
add_library(mixrank_shared SHARED cmake/library.c)
set_target_properties(mixrank_shared PROPERTIES OUTPUT_NAME mixrank EXPORT_NAME mixrank
                      VERSION ${PROJECT_VERSION}
                      SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
add_library(mixrank::mixrank ALIAS mixrank_shared)
foreach(layer IN LISTS MR_PUBLIC_LAYERS)
  # The build interface alone: users link libmixrank, never its layers.
  target_link_libraries(mixrank_shared PRIVATE
                        "$<BUILD_INTERFACE:-Wl,--whole-archive>"
                        "$<BUILD_INTERFACE:mr_${layer}>"
                        "$<BUILD_INTERFACE:-Wl,--no-whole-archive>")
endforeach()
target_link_libraries(mixrank_shared PRIVATE $<BUILD_INTERFACE:mr_build>)
target_include_directories(mixrank_shared INTERFACE
                           $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/mixrank>)

foreach(header IN ITEMS core/api.h core/bytes.h core/error.h featurestore/store.h
                        ranker/model/bundle.h ranker/pipeline/ranker.h)
  get_filename_component(folder ${header} DIRECTORY)
  install(FILES ${header} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/mixrank/${folder})
endforeach()
install(TARGETS mixrank_shared EXPORT mixrank-targets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT mixrank-targets NAMESPACE mixrank:: FILE mixrank-config.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mixrank)
include(CMakePackageConfigHelpers)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/mixrank-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
# Relative to where the file lies, so that `cmake --install --prefix` and a moved tree are found too.
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
  set(MR_PC_PREFIX ${CMAKE_INSTALL_PREFIX})
else()
  file(RELATIVE_PATH MR_PC_PREFIX "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
  string(REGEX REPLACE "/$" "" MR_PC_PREFIX "\${pcfiledir}/${MR_PC_PREFIX}")
endif()
foreach(folder IN ITEMS LIBDIR INCLUDEDIR)
  set(MR_PC_${folder} ${CMAKE_INSTALL_${folder}})
  if(NOT IS_ABSOLUTE "${CMAKE_INSTALL_${folder}}")
    string(PREPEND MR_PC_${folder} "\${prefix}/")
  endif()
endforeach()
configure_file(cmake/mixrank.pc.in ${PROJECT_BINARY_DIR}/mixrank.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/mixrank-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mixrank)
install(FILES ${PROJECT_BINARY_DIR}/mixrank.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
