# Two packages, of the library and for those who compile against it, by CPack. Included before
# GNUInstallDirs, whose folders below /usr are Debian's.
set(CMAKE_INSTALL_PREFIX /usr)
string(REGEX REPLACE "\\.so\\.([0-9]+)$" "\\1" gmb_deb_runtime "${gmb_soname}")
set(CMAKE_INSTALL_DOCDIR "share/doc/${gmb_deb_runtime}")

set(CPACK_GENERATOR DEB)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_ALL runtime development)
set(CPACK_STRIP_FILES ON)
set(GMB_DEB_MAINTAINER "the lib${PROJECT_NAME} authors <nobody@invalid>" CACHE STRING "Maintainer of the Debian packages")
set(CPACK_PACKAGE_CONTACT "${GMB_DEB_MAINTAINER}")
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_MULTIARCH same)

set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME "${gmb_deb_runtime}")
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SHLIBDEPS ON)
# It has no variable for one component; the other has no library.
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")
# What the driver is for is found out at run time: the host backend needs none.
set(CPACK_COMPONENT_RUNTIME_DESCRIPTION "Mailboxes in GPU memory: the shared library")

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libgpumailbox-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "${gmb_deb_runtime} (= ${gmb_version})")
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION "Mailboxes in GPU memory: headers, static library, CMake package, pkg-config file")

# Debian looks for the licence here, in each package.
file(READ "${CMAKE_CURRENT_SOURCE_DIR}/LICENSE-MIT" gmb_deb_mit)
file(CONFIGURE OUTPUT copyright @ONLY CONTENT [[
libgpumailbox is licensed under the MIT licence, below, or the Apache License, Version 2.0, at your
option. The latter is in /usr/share/common-licenses/Apache-2.0.

The licences of the Rust crates linked into it, and of Rust's standard library, are beside the MIT one
in /usr/@CMAKE_INSTALL_DOCDIR@.

@gmb_deb_mit@]])
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/copyright" DESTINATION "share/doc/${gmb_deb_runtime}" COMPONENT runtime)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/copyright" DESTINATION share/doc/libgpumailbox-dev COMPONENT development)
