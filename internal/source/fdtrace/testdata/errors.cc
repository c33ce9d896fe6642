// errors.cc forgets a descriptor where an exception passes, as C++ does it.
#include <fcntl.h>
#include <iostream>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

namespace store {
struct Reader {
  explicit Reader(const std::string &path) : fd(open(path.c_str(), O_RDONLY)) {}
  int fd;
};

template <class T> __attribute__((noinline)) int load(const std::vector<T> &paths) {
  for (const auto &path : paths) {
    auto *r = new Reader(path);
    std::cout << r->fd << " load" << std::endl;
    throw std::runtime_error("malformed");
  }
  return 0;
}
} // namespace store

int main() {
  std::string line;
  std::cout << "ready" << std::endl;
  std::getline(std::cin, line);
  for (int i = 0; i < 3; i++) try {
      store::load(std::vector<std::string>{"/dev/null"});
    } catch (const std::exception &) {
    }
  std::cout << "done" << std::endl;
  std::getline(std::cin, line);
}
