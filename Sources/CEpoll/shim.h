#pragma once
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

/// Names the calling thread; the kernel keeps the first 15 bytes. (`pthread_setname_np` is hidden from Swift by its feature macro, `prctl` by being
/// variadic.)
static inline void sluice_name_thread(const char *name) {
    prctl(PR_SET_NAME, name, 0, 0, 0);
}
