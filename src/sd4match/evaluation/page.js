"use strict";
(() => {
  const thumbnails = [...document.querySelectorAll("button.pair")];
  const dialog = document.querySelector("dialog");
  if (dialog) {
    const picture = dialog.querySelector("img");
    const caption = dialog.querySelector("figcaption");
    const count = dialog.querySelector(".bar span");
    let current = 0;
    const show = (index) => {
      current = (index + thumbnails.length) % thumbnails.length;
      const small = thumbnails[current].querySelector("img");
      picture.src = small.src;
      picture.alt = small.alt;
      caption.textContent = small.alt;
      count.textContent = `${current + 1} of ${thumbnails.length}`;
      dialog.querySelector(".large").scrollLeft = 0;
    };
    thumbnails.forEach((thumbnail, index) => thumbnail.addEventListener("click", () => {
      show(index);
      dialog.showModal();
    }));
    const [previous, next, close] = dialog.querySelectorAll("button");
    previous.addEventListener("click", () => show(current - 1));
    next.addEventListener("click", () => show(current + 1));
    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") show(current - 1);
      if (event.key === "ArrowRight") show(current + 1);
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
  }
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((part) => { part.open = true; });
  });
})();
