# Makes find_package(bfedge) work after `cmake --install`.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

if(BFEDGE_SHARED)
  set_target_properties(bfedge PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
endif()
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/bfedge)

install(TARGETS bfedge EXPORT bfedgeTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES include/bfedge.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT bfedgeTargets NAMESPACE bfedge:: DESTINATION ${package_dir})
if(BFEDGE_DEVICE)
  install(TARGETS bfedge-device RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

configure_package_config_file(cmake/bfedgeConfig.cmake.in bfedgeConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(bfedgeConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/bfedgeConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/bfedgeConfigVersion.cmake
  DESTINATION ${package_dir})
