// Passkeys on the pages. What a browser finds goes to the server in the fields of a form, like all else; without
// this script everything but passkeys works.
"use strict";
{
  const decode = (text) =>
    Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (character) => character.charCodeAt(0));
  const encode = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer)))
      .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  const decodeIds = (list) => (list ?? []).map((item) => ({ ...item, id: decode(item.id) }));

  // WebAuthn Level 3, sections 5.1.8 to 5.1.10, for browsers that do not do it themselves yet, and so for all.
  const readOptions = (options) => ({
    ...options,
    challenge: decode(options.challenge),
    user: options.user && { ...options.user, id: decode(options.user.id) },
    excludeCredentials: decodeIds(options.excludeCredentials),
    allowCredentials: decodeIds(options.allowCredentials),
  });

  const writeCredential = (credential) => {
    const response = { transports: credential.response.getTransports?.() };
    for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"]) {
      const value = credential.response[name];
      if (value) response[name] = encode(value);
    }
    return JSON.stringify({
      id: credential.id,
      rawId: encode(credential.rawId),
      type: credential.type,
      response,
      clientExtensionResults: credential.getClientExtensionResults(),
    });
  };

  const present = async (part, form) => {
    const url = part.dataset.options;
    const answer = await fetch(url, {
      method: "POST",
      body: new URLSearchParams(new FormData(form)),
      redirect: "manual",
    });
    if (!answer.ok) {
      // The same request by the form itself: its answer is the page that says what is wrong, or what comes first.
      form.action = url;
      form.submit();
      return;
    }
    const { request, options } = await answer.json();
    const credential = await navigator.credentials[part.dataset.passkey]({ publicKey: readOptions(options) });
    form.elements.passkey_request.value = request;
    form.elements.passkey.value = writeCredential(credential);
    form.submit();
  };

  const offer = (part, form) => {
    const button = part.querySelector("button");
    const failure = part.querySelector("[role=alert]");
    button.addEventListener("click", async () => {
      if (!form.reportValidity()) return;
      failure.hidden = true;
      button.disabled = true;
      try {
        await present(part, form);
      } catch {
        // Cancelled, timed out, no such passkey, no network: browsers do not tell which, nor should they.
        failure.hidden = false;
      }
      button.disabled = false;
    });
  };

  if (window.PublicKeyCredential) {
    for (const part of document.querySelectorAll("[data-passkey]")) {
      const form = part.closest("form");
      const isHere = part.dataset.origins.split(" ").includes(location.origin);
      const shown = isHere ? part : form.querySelector("[data-elsewhere]");
      if (isHere) offer(part, form);
      if (shown) {
        shown.hidden = false;
        form.querySelector("[data-otherwise]")?.remove();
      }
    }
  }
}
