# One library for users, libmixrank: the objects of all layers in one shared file that exports only what
# carries MR_API, and the four public headers with the two that they need.
set(MR_PUBLIC_LAYERS core engine encoders featurestore model pipeline)
add_library(mixrank_shared SHARED cmake/library.c)
set_target_properties(mixrank_shared PROPERTIES OUTPUT_NAME mixrank EXPORT_NAME mixrank
                      VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
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
configure_file(cmake/mixrank.pc.in ${PROJECT_BINARY_DIR}/mixrank.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/mixrank-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mixrank)
install(FILES ${PROJECT_BINARY_DIR}/mixrank.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
