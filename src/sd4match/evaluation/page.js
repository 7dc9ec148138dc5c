"use strict";
(() => {
  const dialog = document.querySelector("dialog");
  if (dialog) {
    const large = dialog.querySelector(".large");
    const picture = large.querySelector("img");
    const caption = dialog.querySelector("figcaption");
    const count = dialog.querySelector(".bar span");
    const [zoomButton, previous, next, close] = dialog.querySelectorAll("button");
    let group = [];
    let current = 0;
    const zoom = (zoomed, x = 0.5, y = 0.5) => {
      large.classList.toggle("zoomed", zoomed);
      zoomButton.setAttribute("aria-pressed", zoomed);
      large.scrollLeft = x * large.scrollWidth - large.clientWidth / 2;
      large.scrollTop = y * large.scrollHeight - large.clientHeight / 2;
    };
    const show = (index) => {
      current = (index + group.length) % group.length;
      const small = group[current].querySelector("img");
      picture.src = small.currentSrc || small.src;
      picture.alt = small.alt;
      caption.textContent = small.alt;
      count.textContent = `${current + 1} of ${group.length}`;
      zoom(false);
    };
    for (const kind of [".pair", ".plot"]) {
      const thumbnails = [...document.querySelectorAll(`${kind} .picture`)];
      thumbnails.forEach((thumbnail, index) => thumbnail.addEventListener("click", () => {
        group = thumbnails;
        large.classList.toggle("plot", kind === ".plot");
        dialog.showModal();
        show(index);
      }));
    }
    zoomButton.addEventListener("click", () => zoom(!large.classList.contains("zoomed")));
    picture.addEventListener("click", (event) => {
      const place = picture.getBoundingClientRect();
      zoom(
        !large.classList.contains("zoomed"),
        (event.clientX - place.left) / place.width,
        (event.clientY - place.top) / place.height,
      );
    });
    previous.addEventListener("click", () => show(current - 1));
    next.addEventListener("click", () => show(current + 1));
    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("keydown", (event) => {
      const zoomed = large.classList.contains("zoomed");
      if (event.key === "ArrowLeft" && !zoomed) show(current - 1);
      if (event.key === "ArrowRight" && !zoomed) show(current + 1);
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
  }
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((part) => { part.open = true; });
  });
})();
