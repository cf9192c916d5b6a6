# From a checkout of this repository: brew install --HEAD packaging/homebrew/sotto.rb
# HOMEBREW_SOTTO_REPOSITORY names another repository than the one that holds this file.
class Sotto < Formula
  desc "Private chat with language models whose linear layers run encrypted on a server"
  license "Apache-2.0"
  head ENV.fetch("HOMEBREW_SOTTO_REPOSITORY", "file://#{File.expand_path("../..", __dir__)}"), using: :git, branch: "main"

  depends_on "cmake" => :build
  depends_on "rust" => :build
  depends_on "python" # models that are known by name are fetched through pip

  def install
    system "cargo", "install", "--features", "hub", *std_cargo_args(path: "runtime/cli")
    generate_completions_from_executable(bin/"sotto", "completions")
    system bin/"sotto", "man", "--out", man1
  end

  test do
    assert_match "sotto", shell_output("#{bin}/sotto --version")
    assert_match "chat", shell_output("#{bin}/sotto --help")
  end
end
