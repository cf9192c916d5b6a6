# nix run ./packaging/nix -- chat
{
  description = "Private chat with language models whose linear layers run encrypted on a server";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "aarch64-darwin"
      ];
      each = build: nixpkgs.lib.genAttrs systems (system: build nixpkgs.legacyPackages.${system});
    in
    {
      packages = each (pkgs: {
        default = pkgs.rustPlatform.buildRustPackage {
          pname = "sotto";
          version = "0.1.0";
          src = ../..;
          cargoLock.lockFile = ../../Cargo.lock;
          buildAndTestSubdir = "runtime/cli";
          buildFeatures = [ "hub" ];
          # The tests fetch models.
          doCheck = false;
          nativeBuildInputs = [
            pkgs.cmake
            pkgs.installShellFiles
            pkgs.makeWrapper
          ];
          postInstall = ''
            installShellCompletion --cmd sotto \
              --bash <($out/bin/sotto completions bash) \
              --zsh <($out/bin/sotto completions zsh) \
              --fish <($out/bin/sotto completions fish)
            $out/bin/sotto man --out $out/share/man/man1
            # Models that are known by name are fetched through pip.
            wrapProgram $out/bin/sotto --suffix PATH : ${pkgs.lib.makeBinPath [ pkgs.python3Packages.pip ]}
          '';
          meta.mainProgram = "sotto";
        };
      });
    };
}
